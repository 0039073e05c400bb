"""The test bed behind `kvasir dev`. `kvasir serve` never loads it."""
