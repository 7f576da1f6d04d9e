"""The lab's small guest: a kernel, an initramfs and a root disk that boot under QEMU in seconds and answer over HTTP.

Tests, the demo and the benchmark run real guests by the dozen on one machine, where a distribution's own cloud image
takes a minute to boot. `build` makes the images once into the cache, `serve` offers them over HTTP as any image source
would. What the guest does is in `files/`, as the scripts that it runs.
"""
