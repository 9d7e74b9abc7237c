"""Everything that comes from outside, made hostile: no entry point and no command may end in a traceback.

`python -m support.fuzzing --cases 50000` (make fuzz) runs the long form; tests/cli/test_fuzz.py a bounded part.
"""
