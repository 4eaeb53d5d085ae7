#!/bin/sh
# The clone that jobs run in, at /work: made once, then brought to what the repository has checked out, be that a branch, a tag or a commit,
# and whatever became of its history. Its experiments stay.
set -eu
[ -d /work/.git ] || git clone -q --no-hardlinks --no-checkout /repository /work
git -C /work fetch -q --update-shallow /repository HEAD
git -C /work checkout -q -B jobs FETCH_HEAD
cd /work
# The development server of .dvc/config is another machine here; credentials come from AWS_SHARED_CREDENTIALS_FILE.
dvc remote modify -q --local minio endpointurl http://minio:9000
dvc config -q --local core.remote minio
git log -1 --format='jobs run at %h: %s'
