package common

import (
	"math/bits"
	"time"
)

// Histogram of latencies, log-linear: 64 steps per power of two, so that a quantile is off by less than 1.6 %.
type Histogram struct {
	buckets [64 * 40]uint64
	count   uint64
}

func (h *Histogram) Add(d time.Duration) {
	v := uint64(max(d.Nanoseconds(), 64))
	e := bits.Len64(v) - 7
	h.buckets[min(e*64+int(v>>uint(e)), len(h.buckets)-1)]++
	h.count++
}

func (h *Histogram) Merge(other *Histogram) {
	for i, c := range other.buckets {
		h.buckets[i] += c
	}
	h.count += other.count
}

// QuantileMs is the latency, in milliseconds, that a share q of the operations did not exceed.
func (h *Histogram) QuantileMs(q float64) float64 {
	want, sum := uint64(float64(h.count)*q), uint64(0)
	for i, c := range h.buckets {
		if sum += c; sum > want {
			e := max(i/64-1, 0)
			return float64(uint64(i-e*64)<<uint(e)) / 1e6
		}
	}
	return 0
}
