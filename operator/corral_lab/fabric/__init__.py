"""The lab's fabric: two spines, each a router of its own, to which every host and this machine are cabled.

`corral lab up` brings it up, and with it the way from a person's shell to every guest: whichever host has an address
announces it to the spines, and the machine sends to either spine.
"""
