"""What a centre's users need, made from the site's file: images, modules, commands, the portal's apps.

| file | what is in it |
|---|---|
| `base.py` | what is deployed, and a file that is rendered |
"""
