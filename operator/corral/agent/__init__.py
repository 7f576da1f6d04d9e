"""The agent: one a host, it makes the host's rooms look like the Instances in its namespace, and keeps them so.

Its process reads and writes that namespace alone. It never decides what should run: that is said in the Instances.
"""
