"""The program that travels to a device: Python 3.8 or later, standard library alone, imports nothing of ours.

The host packs this folder into one zip file and pushes it once; it unpacks itself into a folder named by its
digest, where Python keeps it compiled, and runs with the device's python3 for as long as a session lasts: for
every list of commands (`main` names them) a line of JSON on standard input, and one with their answers on
standard output. Measuring happens in a detached process (`run`) with one child per engine (`child`), both of
them forks: Python starts once.
"""
