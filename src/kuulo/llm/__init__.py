"""Local language models. One idea carries all: an engine of the task `chat` is a way to have an endpoint that speaks
OpenAI's API for a model, and everything else here is a client of one, or a front.

| file | what is in it |
|---|---|
| `options.py` | THE table of the options, and their values from all layers |
| `schema.py` | what an answer must keep to, as JSON or in the short form |
| `plan.py` | what was asked -> what will be done; every refusal |
| `memory.py` | what a model takes, against what we were given |
| `server.py` | starts an engine's server, waits until it answers, ends it |
| `endpoint.py` | where a server is |
| `client.py` | asks one |
| `tiny.py` `trying.py` | the model that comes with Kuulo, and engines that are tried with it |
| `provenance.py` | what an answer was made with |
"""
