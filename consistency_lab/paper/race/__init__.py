"""Races: who reaches a target first, on equal terms, and by how much.

contestants  settings under names; lengths of run; static twins of a curriculum
running      one run, watched and evaluated, kept as rows
crossing     first sustained crossings, and speed-ups with what censored runs leave of them
race         contestants x seeds, targets, references, qualification: the result
curve        the speed-up over many targets
table        speed-ups against each kind of control, and where contestants ended
contestant_sets  the contestants of a preset
study        the race of a preset, and its cost beforehand
"""
