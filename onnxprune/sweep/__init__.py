"""Many runs over models and settings.

`search` chooses settings one after the other, by what those before them came to.

Change here: how settings are searched for (`search`).
"""
