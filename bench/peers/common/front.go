package common

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// The front gives a library a network door, as thin as one can be: a request is u32 length, u8 operation, key, value; its reply
// u32 length, u8 status, then the value that was read or the words of an error. Replies keep the order of their connection's requests.
const (
	opPut = 0
	opGet = 1

	statusOk    = 0
	statusError = 1

	frameBytesMax = 1 << 21
	// More than the requests that any load keeps in flight on one connection.
	queueMax = 1 << 14
	// Connections of a load, as far as it has so many operations in flight.
	connectionsMax = 8
)

// Call is an operation in flight. Wait returns once it is acknowledged, with the value if it was a get.
type Call interface{ Wait() ([]byte, error) }

// Store is the leader of a replicated key-value store.
type Store interface {
	// Put proposes a command: key, then value. It must not keep the slice.
	Put(command []byte) (Call, error)
	// Get reads linearizably.
	Get(key [KeyBytes]byte) (Call, error)
}

// Serve answers at addr until the process ends.
func Serve(addr string, store Store) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go serveConnection(connection, store)
		}
	}()
	return nil
}

type failed struct{ err error }

func (f failed) Wait() ([]byte, error) { return nil, f.err }

func serveConnection(connection net.Conn, store Store) {
	defer connection.Close()
	calls := make(chan Call, queueMax)
	defer close(calls)
	go answer(connection, calls)
	r := bufio.NewReaderSize(connection, 1<<18)
	var head [5]byte
	body := make([]byte, frameBytesMax)
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		n := int(binary.LittleEndian.Uint32(head[:])) - 1
		if n < KeyBytes || n > len(body) {
			return
		}
		if _, err := io.ReadFull(r, body[:n]); err != nil {
			return
		}
		var call Call
		var err error
		if head[4] == opGet {
			call, err = store.Get([KeyBytes]byte(body))
		} else {
			call, err = store.Put(body[:n])
		}
		if err != nil {
			call = failed{err}
		}
		calls <- call
	}
}

// answer writes replies in order, and flushes when it would have to wait for the next call.
func answer(connection net.Conn, calls <-chan Call) {
	w := bufio.NewWriterSize(connection, 1<<16)
	var head [5]byte
	for {
		var call Call
		var ok bool
		select {
		case call, ok = <-calls:
		default:
			w.Flush()
			call, ok = <-calls
		}
		if !ok {
			return
		}
		value, err := call.Wait()
		head[4] = statusOk
		if err != nil {
			head[4], value = statusError, []byte(err.Error())
		}
		binary.LittleEndian.PutUint32(head[:], uint32(1+len(value)))
		w.Write(head[:])
		w.Write(value)
	}
}

// Drive is the client of the front: a few connections, the operations in flight pipelined over them.
func Drive(addr string, l Load) (Measured, error) {
	if l.Op == "get" {
		if err := fill(addr, l); err != nil {
			return Measured{}, err
		}
	}
	count := min(connectionsMax, l.InFlight)
	connections := make([]net.Conn, count)
	for i := range connections {
		connection, err := net.Dial("tcp", addr)
		if err != nil {
			return Measured{}, err
		}
		defer connection.Close()
		connections[i] = connection
	}
	var tally Tally
	var wg sync.WaitGroup
	begin := time.Now().Add(l.Warmup)
	for i, connection := range connections {
		depth := l.InFlight / count
		if i < l.InFlight%count {
			depth++
		}
		wg.Go(func() { driveConnection(connection, l, depth, uint64(i)<<40, begin, &tally) })
	}
	wg.Wait()
	return tally.measured(l), nil
}

// driveConnection keeps `depth` operations in flight. Replies come in order, so the ring of times of sending needs no lookup.
func driveConnection(connection net.Conn, l Load, depth int, sequence uint64, begin time.Time, tally *Tally) {
	var latency Histogram
	var failures uint64
	var first string
	defer func() { tally.add(&latency, failures, first) }()
	end := begin.Add(l.Seconds)
	r, w := bufio.NewReaderSize(connection, 1<<18), bufio.NewWriterSize(connection, 1<<18)
	frame := l.frame()
	sent := make([]time.Time, depth)
	send := func(slot int) {
		sequence++
		Key(frame[5:], l.pick(sequence))
		if l.Op == "put" && l.Value >= 8 {
			binary.LittleEndian.PutUint64(frame[5+KeyBytes:], sequence)
		}
		sent[slot] = time.Now()
		w.Write(frame)
	}
	for slot := range depth {
		send(slot)
	}
	for slot := 0; ; slot = (slot + 1) % depth {
		if r.Buffered() == 0 {
			w.Flush()
		}
		err := readReply(r, l)
		now := time.Now()
		var refused *refusal
		if err != nil {
			failures++
			first = err.Error()
			if !errors.As(err, &refused) {
				return
			}
		} else if now.After(begin) && now.Before(end) {
			latency.Add(now.Sub(sent[slot]))
		}
		if now.After(end) {
			return
		}
		send(slot)
	}
}

// frame is a request with a key and a value of zeros.
func (l Load) frame() []byte {
	n := KeyBytes
	if l.Op == "put" {
		n += l.Value
	}
	frame := make([]byte, 5+n)
	binary.LittleEndian.PutUint32(frame, uint32(1+n))
	frame[4] = opPut
	if l.Op == "get" {
		frame[4] = opGet
	}
	return frame
}

// refusal is an error that the store answered with; the connection goes on.
type refusal struct{ words string }

func (r *refusal) Error() string { return r.words }

func readReply(r *bufio.Reader, l Load) error {
	head, err := r.Peek(5)
	if err != nil {
		return err
	}
	n, status := int(binary.LittleEndian.Uint32(head))-1, head[4]
	r.Discard(5)
	if status != statusOk {
		words := make([]byte, n)
		if _, err := io.ReadFull(r, words); err != nil {
			return err
		}
		return &refusal{string(words)}
	}
	want := 0
	if l.Op == "get" {
		want = l.Value
	}
	if n != want {
		return fmt.Errorf("a reply with %d bytes of value, not %d", n, want)
	}
	_, err = r.Discard(n)
	return err
}

// fill writes every key once, over one connection.
func fill(addr string, l Load) error {
	l.Op = "put"
	connection, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer connection.Close()
	go func() {
		w := bufio.NewWriterSize(connection, 1<<18)
		frame := l.frame()
		for number := range l.Keys {
			Key(frame[5:], number)
			w.Write(frame)
		}
		w.Flush()
	}()
	r := bufio.NewReaderSize(connection, 1<<18)
	for range l.Keys {
		if err := readReply(r, l); err != nil {
			return fmt.Errorf("filling: %w", err)
		}
	}
	return nil
}
