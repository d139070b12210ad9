"""Does the suite see the bugs that products of this kind have had? Each is put into a copy of the code, and a named test must fail.

`python -m tests.seeded` (`make seeded`) plants one bug after the other and runs the tests that are named beside it: red by
a failed assertion is a catch; green, an import that fails, a name that no longer exists or a text that no longer fits is
not. First all named tests must be green on the copy as it is.

    bugs.py     the ten bugs B1 to B10: what is changed where, and which tests must see it
    proof.py    copy, plant, run, judge
"""
