"""The lab's stand-in for `esc`, and the commands `pulumi env …` of the stand-in for `pulumi`: one implementation.

It speaks the ESC half of the cloud's API with the lab's cloud, and refuses every other back end.
"""
