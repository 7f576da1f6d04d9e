"""BGP: the host as a router that tells the fabric which addresses it has, and hears of all others."""
