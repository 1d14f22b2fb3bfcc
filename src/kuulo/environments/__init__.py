"""Engines in environments of their own: from which recipes they are made, and which of them are installed.

A recipe is a folder here, named as its engine:

    environment.toml     python = ">=3.9,<3.14"    Pythons that the locks are for
                         program = "whisper"       what `kuulo run ENGINE` starts (left out: the engine has none)
                         note = "..."              what people have to know
                         [cpu]                     of one variant:
                         index = "https://..."     has what PyPI has not
                         without = ["triton"]      packages that others ask for and nobody needs
                         [cpu.build]               variables for what is built from source
    requirements.in      what is wanted
    cpu.in cuda.in       instead of it, where a variant wants something else; begins with `-r requirements.in`
    cpu.lock cuda.lock   every package with its digests, by tools/locks.py; `any.lock` where there are no variants

| file | what is in it |
|---|---|
| `recipe.py` | a recipe, read |
| `installed.py` | the environments on this machine |
| `install.py` | makes one |
| `uv.py` | uv, with which it does so |
| `sources.py` | where packages come from |
| `bundle.py` | what a machine without a network needs for that, in a folder |
| `health.py` | has one transcribe, or answer |
"""
