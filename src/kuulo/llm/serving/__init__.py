"""An endpoint of OpenAI's API that lives as long as its process or its job: `kuulo serve`.

| file | what is in it |
|---|---|
| `registry.py` | which servers there are, and how they are |
| `keys.py` | their secret keys |
| `app.py` | the allowed routes, and who gets in |
| `connection.py` | connections, closed when a request's head does not come |
| `bodies.py` | request bodies, refused while they are read, or when they do not come on |
| `passing.py` | requests that go on to the engine's server, and answers that come back as they are made |
| `refusals.py` | errors, as clients of OpenAI's API read them |
| `ear.py` | a recognising worker that keeps its model loaded |
| `audio.py` | the routes for recordings |
| `fields.py` | what a form says of a recording, and answers in each format |
| `life.py` | when a server ends: idle, told to, at its job's end, with its engine |
| `front.py` | one server: socket, engines, app |
| `batch_job.py` | a server in a job |
| `reaching.py` | the lines that people type to reach one |
| `publishing.py` | entries for the program `llm` |
"""
