"""Speed and memory of the simulator beside honest scripts and other simulators (not packaged)."""
