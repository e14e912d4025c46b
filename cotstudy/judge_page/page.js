// The judging page, the same in a file, in a notebook and under Voila. It knows no condition and no right answer, and sends nothing.
const FORMAT = "cotstudy-judgements-1"
const TOO_FAST_MS = 250 // a key that is still down must not answer the next question

function numbers(text) { // random numbers in [0, 1) that depend on a text alone (FNV-1a, then mulberry32)
  let h = 2166136261
  for (const c of text) h = Math.imul(h ^ c.codePointAt(0), 16777619) >>> 0
  return () => {
    h = (h + 0x6d2b79f5) >>> 0
    let t = Math.imul(h ^ (h >>> 15), h | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

export function orderFor(set, judge) { // everybody sees the same blocks; within a block each in an order of their own
  const random = numbers(set.id + "/" + judge), order = []
  for (const number of new Set(set.pairs.map((p) => p.block))) {
    const block = set.pairs.filter((p) => p.block === number)
    for (let k = block.length - 1; k > 0; k--) {
      const j = Math.floor(random() * (k + 1));
      [block[k], block[j]] = [block[j], block[k]]
    }
    order.push(...block)
  }
  return order
}

export function inBrowser(set) { // where a file keeps what was judged: this browser
  const key = (judge) => `cotstudy-judge/${set.id}/${judge}`
  const store = (() => { try { localStorage.setItem("cotstudy", "1"); return localStorage } catch { return null } })()
  const known = () => store ? Object.keys(store).filter((k) => k.startsWith(key(""))).map((k) => k.slice(key("").length)) : []
  return {
    everywhere: true, file: true, lasting: store !== null, known,
    load: async (judge) => JSON.parse(store?.getItem(key(judge)) ?? "null"),
    save: (result) => { try { store?.setItem(key(result.judge), JSON.stringify(result)) } catch { return false } return store !== null },
  }
}

export function inKernel(model) { // where a notebook keeps it: the kernel, which writes a file
  return {
    everywhere: false, file: false, lasting: true, known: () => model.get("known") ?? [],
    load: (judge) => new Promise((done) => {
      const told = () => {
        const earlier = model.get("earlier")
        if (earlier?.asked !== judge) return
        model.off("change:earlier", told)
        done(earlier.result ?? null)
      }
      model.on("change:earlier", told)
      model.set("asking", { judge, at: Date.now() })
      model.save_changes()
    }),
    save: (result) => { model.set("result", structuredClone(result)); model.save_changes(); return true },
  }
}

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value)
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value)
  }
  node.append(...children.flat().filter((c) => c !== null))
  return node
}

const CHOICES = [
  { choice: "left", keys: ["1", "ArrowLeft"], shown: "1", words: "Chain 1" },
  { choice: "tie", keys: ["0", "ArrowDown"], shown: "0", words: "No difference" },
  { choice: "right", keys: ["2", "ArrowRight"], shown: "2", words: "Chain 2" },
]
const BACK = ["Backspace", "ArrowUp"]

export function mount(root, set, home) {
  let order = [], result = null, at = 0, shownAt = 0, unsaved = false, keys = null
  const steps = () => order.length * set.criteria.length
  const choices = CHOICES.filter((c) => set.ties || c.choice !== "tie")
  const step = (k) => ({ pair: order[Math.floor(k / set.criteria.length)], criterion: set.criteria[k % set.criteria.length] })
  const given = (k) => result.answers.find((a) => a.pair === step(k).pair.id && a.criterion === step(k).criterion.key)
  const firstOpen = () => { let k = 0; while (k < steps() && given(k)) k++; return k }
  const live = make("p", { class: "cj-live", role: "status", "aria-live": "polite" })

  function show(...nodes) {
    root.replaceChildren(live, ...nodes.filter((n) => n !== null))
    if (root.getBoundingClientRect().top < 0) root.scrollIntoView()
  }

  async function begin(judge, earlier = null) {
    order = orderFor(set, judge)
    result = earlier ?? await home.load(judge) ?? { format: FORMAT, set: set.id, judge, began: new Date().toISOString(), answers: [] }
    at = firstOpen()
    render()
  }

  function keep() {
    result.saved = new Date().toISOString()
    unsaved = !home.save(result) || home.file
  }

  function choose(choice) {
    const ms = Math.round(performance.now() - shownAt)
    if (ms < TOO_FAST_MS) return
    const { pair, criterion } = step(at), before = given(at)
    if (before) result.answers.splice(result.answers.indexOf(before), 1)
    result.answers.push({ pair: pair.id, criterion: criterion.key, choice, ms, at: new Date().toISOString() })
    keep()
    at++
    render()
  }

  function back() { if (at > 0) { at--; render() } }

  function download() {
    const name = `judgements-${set.id.slice(0, 8)}-${result.judge.replace(/[^\p{L}\p{N}]+/gu, "_")}.json`
    const url = URL.createObjectURL(new Blob([JSON.stringify(result, null, 1)], { type: "application/json" }))
    const link = make("a", { href: url, download: name })
    root.append(link)
    link.click()
    link.remove()
    setTimeout(() => URL.revokeObjectURL(url), 10000)
    unsaved = false
    live.textContent = `Saved as ${name}.`
  }

  async function open(file) { // a result that was saved before, perhaps on another machine
    let found = null
    try { found = JSON.parse(await file.text()) } catch { /* said below */ }
    if (found?.format !== FORMAT || found.set !== set.id || !Array.isArray(found.answers)) {
      live.textContent = `${file.name} is no result of this page.`
      return
    }
    home.save(found)
    begin(found.judge, found)
  }

  function start() {
    const name = make("input", { id: "cj-name", maxlength: "60", required: true, autocomplete: "off", spellcheck: "false" })
    const go = (e) => { e.preventDefault(); if (name.value.trim()) begin(name.value.trim()) }
    const earlier = home.known().map((judge) => make("button", { type: "button", class: "cj-quiet", onclick: () => begin(judge) }, judge))
    const pick = make("input", { type: "file", accept: ".json,application/json", onchange: (e) => open(e.target.files[0]) })
    const minutes = Math.max(1, Math.round(set.pairs.length * set.criteria.length / 3))
    show(make("h1", {}, set.title),
      make("p", {}, `You will see ${set.pairs.length} questions, each with two chains of reasoning. The final answers are hidden. `
        + "Say which chain is better; you need not know the right answer. There may be questions that only test attention."),
      make("ol", { class: "cj-criteria" }, set.criteria.map((c) => make("li", {}, c.ask))),
      make("p", {}, `About ${minutes} min. You can stop at any time and go on later; what you have judged counts.`),
      make("form", { onsubmit: go }, make("label", { for: "cj-name" }, "A name or nickname, kept with your judgements"),
        make("div", { class: "cj-row" }, name, make("button", { class: "cj-go" }, "Start"))),
      earlier.length ? make("p", {}, "Go on as ", ...earlier) : null,
      home.file ? make("details", {}, make("summary", {}, "Go on with a saved result"), pick) : null,
      home.lasting ? null : make("p", { class: "cj-warn" }, "This browser keeps nothing: save your result before you close the page."))
    name.focus({ preventScroll: true })
  }

  function progress() {
    const done = result.answers.length, all = steps(), times = result.answers.map((a) => a.ms).sort((a, b) => a - b)
    const typical = times.length ? Math.min(120000, times[Math.floor(times.length / 2)]) : null
    const left = typical && done < all ? `, about ${Math.max(1, Math.round(typical * (all - done) / 60000))} min left` : ""
    const told = `${done} of ${all} judged${left}`
    return make("div", { class: "cj-progress" }, make("progress", { max: all, value: done, "aria-label": told }), make("span", {}, told))
  }

  const chain = (words, text, chosen) => make("section", { class: "cj-chain" + (chosen ? " cj-chosen" : "") },
    make("h3", {}, words), make("p", {}, text || "(nothing was written)"))

  function pairScreen() {
    const { pair, criterion } = step(at), before = given(at)?.choice
    const buttons = choices.map((c) => make("button", {
      type: "button", class: before === c.choice ? "cj-chosen" : "", "data-choice": c.choice, "aria-pressed": String(before === c.choice),
      "aria-keyshortcuts": c.keys.join(" "), onclick: () => choose(c.choice),
    }, make("kbd", {}, c.shown), " ", c.words))
    const ask = make("h2", { tabindex: "-1" }, criterion.ask)
    show(progress(), make("div", { class: "cj-question" }, make("h3", {}, "Question"), make("p", {}, pair.question)),
      make("div", { class: "cj-chains" }, chain("Chain 1", pair.left, before === "left"), chain("Chain 2", pair.right, before === "right")),
      make("div", { class: "cj-bar" }, ask, make("div", { class: "cj-choices cj-" + choices.length }, buttons)),
      make("div", { class: "cj-foot" },
        make("button", { type: "button", class: "cj-quiet", disabled: at === 0, onclick: back }, make("kbd", {}, "⌫"), " Back"),
        make("span", { class: "cj-help" }, set.ties ? "Keys: 1 or ←, 2 or →, 0 or ↓ for no difference" : "Keys: 1 or ←, 2 or →"),
        home.file ? make("button", { type: "button", class: "cj-quiet", onclick: download }, "Save result") : null))
    ask.focus({ preventScroll: true })
    live.textContent = `${at + 1} of ${steps()}${before ? `, you chose ${choices.find((c) => c.choice === before).words}` : ""}`
  }

  function end() {
    const other = () => { result = null; start() }
    show(progress(), make("h1", { tabindex: "-1" }, "Thank you."),
      make("p", {}, home.file ? "Please save your result and hand the file to whoever asked you." : "Your judgements are kept; you may close this page."),
      make("div", { class: "cj-row" }, home.file ? make("button", { type: "button", class: "cj-go", onclick: download }, "Save result") : null,
        make("button", { type: "button", class: "cj-quiet", onclick: back }, "Back"),
        make("button", { type: "button", class: "cj-quiet", onclick: other }, "Somebody else judges")))
    root.querySelector(".cj-go, h1").focus({ preventScroll: true })
  }

  function render() {
    if (at < steps()) pairScreen(); else end()
    shownAt = performance.now()
  }

  function press(e) {
    if (!result || at > steps() || e.repeat || e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) return
    const hit = at < steps() && choices.find((c) => c.keys.includes(e.key))
    if (!hit && !BACK.includes(e.key)) return
    e.preventDefault()
    e.stopPropagation()
    if (hit) choose(hit.choice); else back()
  }

  root.classList.add("cot-judge")
  root.setAttribute("data-lm-suppress-shortcuts", "true") // JupyterLab has other ideas of what 1 and 2 mean
  keys = home.everywhere ? document : root
  keys.addEventListener("keydown", press)
  if (home.file) addEventListener("beforeunload", (e) => { if (unsaved && !home.lasting) e.preventDefault() })
  start()
  return () => keys.removeEventListener("keydown", press)
}

export default { render({ model, el }) {
  const root = document.createElement("div")
  el.append(root)
  return mount(root, model.get("blind"), inKernel(model))
} }
