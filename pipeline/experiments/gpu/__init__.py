"""The checks and measurements that need a GPU: `make check-gpu`, and the speed of variants."""
