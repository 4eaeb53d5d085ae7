#!/bin/sh
# The clone that jobs run in, at /work: made once, then brought to what is committed in the repository. Its experiments stay.
set -eu
if [ -d /work/.git ]; then
    git -C /work pull -q --ff-only
else
    git clone -q --no-hardlinks /repository /work
fi
cd /work
# The development server of .dvc/config is another machine here; credentials come from AWS_SHARED_CREDENTIALS_FILE.
dvc remote modify -q --local minio endpointurl http://minio:9000
dvc config -q --local core.remote minio
git log -1 --format='jobs run at %h: %s'
