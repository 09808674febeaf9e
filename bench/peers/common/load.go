// Package common is what the harnesses of all peers share: the command line, three nodes as processes of their own, a closed-loop load,
// and a TCP front for peers that are libraries and have no network door.
package common

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// KeyBytes is the length of every key: that of Barge's load generator, so that the commands of all systems are alike.
const KeyBytes = 16

// Load is one point to measure: so many operations in flight, each awaited by itself, the next one begun when it is answered.
type Load struct {
	Op       string // put or get
	Value    int    // bytes
	InFlight int
	Keys     uint64 // chosen evenly
	Groups   int    // over which they are spread
	Warmup   time.Duration
	Seconds  time.Duration
}

// Key writes the key of a number: 16 hexadecimal digits.
func Key(key []byte, number uint64) {
	const digits = "0123456789abcdef"
	for i := KeyBytes - 1; i >= 0; i-- {
		key[i] = digits[number&15]
		number >>= 4
	}
}

// pick scatters consecutive sequence numbers evenly over the keys.
func (l Load) pick(sequence uint64) uint64 {
	return (sequence * 0x9E3779B97F4A7C15) % l.Keys
}

// Tally collects what the workers of a load counted.
type Tally struct {
	mu         sync.Mutex
	latency    Histogram
	errors     uint64
	firstError string
}

func (t *Tally) add(latency *Histogram, errors uint64, first string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.latency.Merge(latency)
	t.errors += errors
	if t.firstError == "" {
		t.firstError = first
	}
}

// Measured is what a harness prints for a load, as one line of JSON.
type Measured struct {
	OperationsPerSecond float64 `json:"operationsPerSecond"`
	P50Ms               float64 `json:"p50Ms"`
	P99Ms               float64 `json:"p99Ms"`
	Errors              uint64  `json:"errors"`
	FirstError          string  `json:"firstError,omitempty"`
	Version             string  `json:"version"`
}

func (t *Tally) measured(l Load) Measured {
	return Measured{
		OperationsPerSecond: float64(t.latency.count) / l.Seconds.Seconds(),
		P50Ms:               t.latency.QuantileMs(.5),
		P99Ms:               t.latency.QuantileMs(.99),
		Errors:              t.errors,
		FirstError:          t.firstError,
	}
}

// Blocking runs the load with a goroutine for each operation in flight, for clients whose calls block.
func Blocking(l Load, do func(worker int, key string) error) Measured {
	var tally Tally
	var wg sync.WaitGroup
	begin := time.Now().Add(l.Warmup)
	end := begin.Add(l.Seconds)
	for worker := range l.InFlight {
		wg.Go(func() {
			var latency Histogram
			var errors uint64
			var first string
			var key [KeyBytes]byte
			sequence := uint64(worker) << 40
			for {
				sequence++
				Key(key[:], l.pick(sequence))
				sent := time.Now()
				if sent.After(end) {
					break
				}
				err := do(worker, string(key[:]))
				answered := time.Now()
				if err != nil {
					errors++
					first = err.Error()
					time.Sleep(time.Millisecond)
				} else if answered.After(begin) && answered.Before(end) {
					latency.Add(answered.Sub(sent))
				}
			}
			tally.add(&latency, errors, first)
		})
	}
	wg.Wait()
	return tally.measured(l)
}

const fillWorkers = 64

// FillBlocking writes every key once.
func FillBlocking(l Load, put func(worker int, key string) error) error {
	var next atomic.Uint64
	failed := make(chan error, fillWorkers)
	var wg sync.WaitGroup
	for worker := range fillWorkers {
		wg.Go(func() {
			var key [KeyBytes]byte
			for number := next.Add(1) - 1; number < l.Keys; number = next.Add(1) - 1 {
				Key(key[:], number)
				if err := put(worker, string(key[:])); err != nil {
					failed <- fmt.Errorf("filling: %w", err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	return <-failed
}
