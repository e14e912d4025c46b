"""Workers on a SLURM cluster, as many as there is work for. Start it where jobs may be submitted, then, with the address that it prints:

    cotstudy run STUDY --cluster tcp://... --needs GPU=1

Change the numbers to those of your cluster. The output folder must lie where all nodes see it under the same path."""
import time

from dask_jobqueue import SLURMCluster


def workers() -> SLURMCluster:
    return SLURMCluster(cores=1, processes=1, memory="16GB", walltime="12:00:00", job_extra_directives=["--gres=gpu:1"],
                        worker_extra_args=["--resources", "GPU=1"])


if __name__ == "__main__":
    with workers() as cluster:
        cluster.adapt(minimum_jobs=0, maximum_jobs=30)
        print(cluster.scheduler_address, cluster.dashboard_link, flush=True)
        while True: time.sleep(60)
