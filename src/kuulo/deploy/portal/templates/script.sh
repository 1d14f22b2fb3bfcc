#!/bin/bash
# The transcription. What was said in the form is in request.json, which Kuulo reads and checks: nothing of it is shell
# text. Kuulo's exit code is the job's.
cd -- "$(dirname -- "${BASH_SOURCE[0]}")" || exit
exec @@PROGRAM@@ portal run request.json
