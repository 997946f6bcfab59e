#!/bin/sh
# A native task: what it is called, who it is, and what it sees.
echo "$SKEP_JOB.$SKEP_TASK_INDEX on $SKEP_AGENT: user $(id -un), host $(hostname), folder $(pwd), arguments: $*"
