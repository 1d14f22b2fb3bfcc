"""Jobs: recordings that a scheduler's tasks hear, prompts that they ask, or transcripts that a language model works on
there. Everything about a job lies in its folder.

| file | what |
|---|---|
| `batch.py` | what a job is: `Job` for any, `Batch` of recordings, `Prompts`, `Transcripts`, `Then` what follows |
| `plan_file.py`, `folder.py` | it as JSON; its folder, and what its tasks have said there |
| `survey.py`, `packing.py`, `planning.py`, `queues.py`, `settings.py`, `table.py` | from recordings to a `Batch` |
| `prompts_planning.py`, `prompts.py` | from prompts to `Prompts`, and what its task and its end share |
| `transcripts_planning.py`, `transcripts.py` | from transcripts to `Transcripts`; what is settled and looked at again |
| `submission.py`, `claims.py` | giving it to the scheduler; whose results are whose |
| `life.py`, `task.py`, `share_task.py`, `prompts_task.py`, `transcripts_task.py` | a task on its node |
| `account.py`, `finish.py`, `join.py`, `*_finish.py`, `then.py` | what comes after the tasks |
| `overview.py`, `shares_overview.py`, `retrying.py`, `mail.py` | how it goes, and once more |
| `measuring.py`, `calibration.py`, `amounts.py` | what it took; times and sizes |
"""
