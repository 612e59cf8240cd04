"""The lab's cloud: a loopback stand-in for the part of the Pulumi Cloud API that stacks and ESC need.

It answers what the real `pulumi`, the real `esc` and the vendor's Python client ask, and nothing else. Environments are
evaluated by the vendor's own evaluator (`lab/toolchain/pulumi/esc-evaluator`).
"""
