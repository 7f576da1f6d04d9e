"""The command `corral`: runs the controller or an agent, and writes what is generated from the code.

What other packages add (the lab) comes by the entry point group `corral.cli`, so that nothing here imports them.
"""
