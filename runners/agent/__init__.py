"""What travels to the device: main.py, engines.py and power.py, standard library alone, Python ≥ 3.8."""
