"""Speed and memory of pyg-lth, as ratios against peers measured in the same run.

`make bench` runs everything. Every contender, pyg-lth included, lives in a process of its own, in
the environment that its versions demand, and waits there until it is asked: the repeats take turns,
and never do two contenders compute at once.
"""
