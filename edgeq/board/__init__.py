"""An emulated ARM board for everyone: a real arm64 Linux under QEMU, on loopback alone.

`kinds` says which boards there are, `image` builds what they boot from, `template` freezes one that has
booted, and `boards` clones, lists and ends them.
"""
