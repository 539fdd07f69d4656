"""The command line's verbs, one file each: compose the stages, print, return the exit code."""
