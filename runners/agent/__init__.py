"""The program that travels to a device: Python 3.8 or later, standard library alone, imports nothing of ours.

The host packs this folder into one zip file and pushes it once; it unpacks itself into a folder named by its
digest, where Python keeps it compiled, and runs with the device's python3 (`main` lists the commands): a JSON
object with a list of commands on standard input, one with their answers on standard output. Measuring happens
in a detached process (`run`) with one child per engine (`child`).
"""
