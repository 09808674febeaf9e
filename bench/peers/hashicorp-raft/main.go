// Command hashicorp-raft measures hashicorp/raft, a Raft library, with raft-wal as its log and tuned: three processes on loopback, a
// key-value state machine in memory, and the load over the front. Every Apply is answered once it is synced on a quorum and applied.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"barge/bench/peers/common"
)

const (
	// The most that the library allows; its default is 64, with which it is five times slower at 1,000 in flight.
	maxAppendEntries = 1024
	leadTimeout      = 40 * time.Second
	applyTimeout     = 20 * time.Second
)

func main() {
	version := common.Version("github.com/hashicorp/raft") + ", raft-wal " + common.Version("github.com/hashicorp/raft-wal")
	common.Library(version, start)
}

func start(n common.Node) (common.Store, error) {
	log, err := wal.Open(n.Dir)
	if err != nil {
		return nil, err
	}
	cached, err := raft.NewLogCache(2*maxAppendEntries, log)
	if err != nil {
		return nil, err
	}
	stream, err := listen(n.Addr())
	if err != nil {
		return nil, err
	}
	diagnostics := hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr})
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream, MaxPool: 3, Timeout: 10 * time.Second, Logger: diagnostics,
	})
	settings := raft.DefaultConfig()
	settings.LocalID = serverID(n.ID)
	settings.MaxAppendEntries = maxAppendEntries
	settings.BatchApplyCh = true
	settings.SnapshotThreshold = 1 << 40 // no snapshot during a run
	settings.Logger = diagnostics
	if n.ID != 1 { // node 1 is to lead
		settings.ElectionTimeout, settings.HeartbeatTimeout = 5*time.Second, 5*time.Second
	}
	var members raft.Configuration
	for i, addr := range n.Addrs {
		members.Servers = append(members.Servers, raft.Server{ID: serverID(i + 1), Address: raft.ServerAddress(addr)})
	}
	snapshots := raft.NewDiscardSnapshotStore()
	if err := raft.BootstrapCluster(settings, cached, log, snapshots, transport, members); err != nil {
		return nil, err
	}
	values := &kv{values: map[[common.KeyBytes]byte][]byte{}}
	node, err := raft.NewRaft(settings, values, cached, log, snapshots, transport)
	if err != nil {
		return nil, err
	}
	store := &store{node, values}
	if n.ID != 1 {
		return store, nil
	}
	return store, store.lead()
}

func serverID(id int) raft.ServerID { return raft.ServerID(strconv.Itoa(id)) }

// kv is a state machine in memory that takes batches.
type kv struct {
	mu     sync.RWMutex
	values map[[common.KeyBytes]byte][]byte
}

func (s *kv) Apply(entry *raft.Log) any { return s.ApplyBatch([]*raft.Log{entry})[0] }

func (s *kv) ApplyBatch(entries []*raft.Log) []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, entry := range entries {
		if entry.Type == raft.LogCommand && len(entry.Data) >= common.KeyBytes {
			key := [common.KeyBytes]byte(entry.Data)
			s.values[key] = append(s.values[key][:0], entry.Data[common.KeyBytes:]...)
		}
	}
	return make([]any, len(entries))
}

func (s *kv) get(key [common.KeyBytes]byte) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	// A copy: ApplyBatch overwrites in place.
	return append([]byte(nil), s.values[key]...)
}

func (s *kv) Snapshot() (raft.FSMSnapshot, error) {
	return nil, errors.New("no snapshot is asked for")
}

func (s *kv) Restore(io.ReadCloser) error { return errors.New("no snapshot was taken") }

type layer struct{ net.Listener }

func listen(addr string) (layer, error) {
	listener, err := net.Listen("tcp", addr)
	return layer{listener}, err
}

func (layer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(addr), timeout)
}

type store struct {
	node   *raft.Raft
	values *kv
}

func (s *store) lead() error {
	for deadline := time.Now().Add(leadTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if s.node.State() == raft.Leader {
			return s.node.Apply(make([]byte, common.KeyBytes), applyTimeout).Error()
		}
	}
	return fmt.Errorf("node 1 does not lead")
}

func (s *store) Put(command []byte) (common.Call, error) {
	return put{s.node.Apply(append([]byte(nil), command...), 0)}, nil
}

// Get asks a quorum whether this node still leads. What was acknowledged before is then applied here: an Apply is answered only after that.
func (s *store) Get(key [common.KeyBytes]byte) (common.Call, error) {
	return get{s.node.VerifyLeader(), s.values, key}, nil
}

type put struct{ future raft.ApplyFuture }

func (p put) Wait() ([]byte, error) { return nil, p.future.Error() }

type get struct {
	future raft.Future
	values *kv
	key    [common.KeyBytes]byte
}

func (g get) Wait() ([]byte, error) {
	if err := g.future.Error(); err != nil {
		return nil, err
	}
	return g.values.get(g.key), nil
}
