"""Conclude: status as a pure function of spec, observation and outcome. Called by the controller and the agent.

Nothing here asks the API or the host; the clock is an argument. Every condition that an object's author owns is set at
every pass, and a condition's time moves only when its status does.
"""
