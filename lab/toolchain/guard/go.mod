module homelab-ops/lab/toolchain/guard

go 1.26.0
