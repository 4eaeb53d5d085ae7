"""python shell_worker.py REDIS LEASE SECONDS [GPU …]: a worker whose jobs are shell scripts: the parameter ``script``, else $SHELL_SCRIPT.

A script finds its job's id as $JOB.
"""

import os
import sys
from pathlib import Path

from finsight.adapters.job_process import plain_environment
from finsight.adapters.jobs import Work
from finsight.adapters.redis_queue import RedisQueue
from finsight.command import stop_signal
from finsight.domain.jobs import Job
from finsight.service.worker import Worker

url, lease, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])


def work(job: Job) -> Work:
    script = str(job.order.parameters.get("script") or os.environ["SHELL_SCRIPT"])
    return Work([["sh", "-c", script]], Path.cwd(), plain_environment(JOB=job.id), seconds=seconds)


with stop_signal() as stop:
    Worker(RedisQueue(url, lease, pause=0.1), work, sys.argv[4:]).run(stop)
