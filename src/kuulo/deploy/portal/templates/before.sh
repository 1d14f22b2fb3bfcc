# Sourced before the script is started. Near the end of the time limit the scheduler tells this shell alone (SIGUSR1);
# when the job is cancelled it tells everybody (SIGTERM). Kuulo keeps what is heard then, and is waited for.
trap 'kill -USR1 "${SCRIPT_PID}" && wait "${SCRIPT_PID}"' USR1
trap 'wait "${SCRIPT_PID}"' TERM
