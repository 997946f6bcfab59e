#!/bin/sh
# One member on the ports that Skep has given; its data is in the task's own folder, and gone when the task ends.
at=http://127.0.0.1
exec etcd --name "$SKEP_JOB-$SKEP_TASK_INDEX" --data-dir /sandbox/data --logger zap \
    --listen-client-urls "$at:$PORT_CLIENT" --advertise-client-urls "$at:$PORT_CLIENT" \
    --listen-peer-urls "$at:$PORT_PEER" --initial-advertise-peer-urls "$at:$PORT_PEER" \
    --initial-cluster "$SKEP_JOB-$SKEP_TASK_INDEX=$at:$PORT_PEER"
