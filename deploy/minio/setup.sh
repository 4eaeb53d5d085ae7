#!/bin/sh
# Makes the bucket, and a user who may use it and nothing else. Run again, it changes nothing.
set -eu
mc alias set local http://minio:9000 "$(cat /run/secrets/minio_root_user)" "$(cat /run/secrets/minio_root_password)" > /dev/null
mc mb --ignore-existing local/finsight
mc admin user add local finsight "$(cat /run/secrets/s3_secret_key)" > /dev/null
mc admin policy create local finsight /etc/finsight/policy.json > /dev/null
mc admin policy attach local finsight --user finsight > /dev/null 2>&1 || echo "the policy is attached already"
mc admin user info local finsight
