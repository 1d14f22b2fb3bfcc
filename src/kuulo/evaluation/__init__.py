"""How far a transcript is from a reference: words, characters, speakers.

| file | what is in it |
|---|---|
| `lines.py` | references and transcripts, read as lines with speaker, times and text, as far as they have them |
| `texts.py` | words as they are compared; word and character error rate; cpWER |
| `turns.py` | who spoke when: DER and JER |
| `evaluation.py` | a pair of files, and a folder of pairs, with confidence intervals |
| `page.py` | the differences side by side, as a page |
"""
