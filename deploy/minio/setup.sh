#!/bin/sh
# Makes the bucket, and a user who may use it and nothing else. Run again, it changes nothing.
set -eu
# In the environment and on standard input: a command's words are for every process of the machine to read.
MC_HOST_local="http://$(cat /run/secrets/minio_root_user):$(cat /run/secrets/minio_root_password)@minio:9000"
export MC_HOST_local
mc mb --ignore-existing local/finsight
mc admin user add local finsight < /run/secrets/s3_secret_key > /dev/null
mc admin policy create local finsight /etc/finsight/policy.json > /dev/null
said=$(mc admin policy attach local finsight --user finsight 2>&1) || true # which fails, too, where it is attached already
case $(mc admin user info local finsight) in
    *"PolicyName: finsight"*) echo "the user finsight may use the bucket finsight" ;;
    *)
        echo "error: the user finsight has not got the policy of that name: $said" >&2
        exit 1
        ;;
esac
