"""Jobs: recordings that a scheduler's tasks hear, or prompts that they ask. Everything about a job lies in its folder.

| file | what |
|---|---|
| `batch.py` | what a job is: `Job` for any, `Batch` of recordings, `Prompts` for a model, `Then` what follows |
| `plan_file.py`, `folder.py` | it as JSON; its folder, and what its tasks have said there |
| `survey.py`, `packing.py`, `planning.py`, `queues.py`, `settings.py`, `table.py` | from recordings to a `Batch` |
| `prompts_planning.py`, `prompts.py` | from prompts to `Prompts`, and what its task and its end share |
| `submission.py`, `claims.py` | giving it to the scheduler; whose results are whose |
| `life.py`, `task.py`, `prompts_task.py` | a task on its node |
| `account.py`, `finish.py`, `join.py`, `prompts_finish.py`, `then.py` | what comes after the tasks |
| `overview.py`, `prompts_overview.py`, `retrying.py`, `mail.py` | how it goes, and once more |
| `measuring.py`, `calibration.py`, `amounts.py` | what it took; times and sizes |
"""
