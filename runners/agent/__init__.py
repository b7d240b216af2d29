"""The program that travels to a device: Python 3.8 or later, standard library alone, imports nothing of ours.

The host packs this folder into one zip file, pushes it by digest and runs it with the device's python3
(`main` lists the commands). Every command reads one JSON object on standard input and answers with one
on standard output. Measuring happens in a detached process (`run`) with one child per engine (`child`).
"""
