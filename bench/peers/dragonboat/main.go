// Command dragonboat measures lni/dragonboat v4, a Raft library, with its own log `tan`: three processes on loopback, a key-value state
// machine in memory, and the load over the front. Every proposal is answered once it is synced on a quorum and applied.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/statemachine"

	"barge/bench/peers/common"
)

const (
	callTimeout  = 10 * time.Second
	leadTimeout  = 60 * time.Second
	busyInterval = 100 * time.Microsecond
	// Of many groups: each with a log of its own.
	workers = 2
)

func main() {
	common.Library(common.Version("github.com/lni/dragonboat/v4"), start)
}

func start(n common.Node) (common.Store, error) {
	for _, name := range []string{"raft", "rsm", "logdb", "transport", "dragonboat", "grpc", "raftpb", "config", "tan", "registry", "settings"} {
		logger.GetLogger(name).SetLevel(logger.ERROR)
	}
	// Ticks of 50 ms with a time-out of 20 of them: a busy machine with two cores calls no election by mistake.
	host, err := dragonboat.NewNodeHost(config.NodeHostConfig{
		NodeHostDir: n.Dir, RaftAddress: n.Addr(), RTTMillisecond: 50,
		Expert: expert(n.Groups),
	})
	if err != nil {
		return nil, err
	}
	members := map[uint64]string{}
	for i, addr := range n.Addrs {
		members[uint64(i+1)] = addr
	}
	create := func(uint64, uint64) statemachine.IStateMachine { return &kv{map[[common.KeyBytes]byte][]byte{}} }
	store := &store{host: host}
	for shard := uint64(1); shard <= uint64(n.Groups); shard++ {
		// No snapshot during a run: SnapshotEntries is 0.
		replica := config.Config{ShardID: shard, ReplicaID: uint64(n.ID), ElectionRTT: 20, HeartbeatRTT: 2, CheckQuorum: true}
		if err := host.StartReplica(members, false, create, replica); err != nil {
			return nil, err
		}
		store.sessions = append(store.sessions, host.GetNoOPSession(shard))
	}
	if n.ID != 1 {
		return store, nil
	}
	for _, session := range store.sessions {
		if err := store.lead(session); err != nil {
			return nil, err
		}
	}
	return store, nil
}

// expert chooses the log and its workers. tan syncs once for each group, so where there are many it is Pebble, its default, with a sync for all groups of a worker.
func expert(groups int) config.ExpertConfig {
	if groups == 1 {
		return config.ExpertConfig{LogDBFactory: tan.Factory}
	}
	engine, log := config.GetDefaultEngineConfig(), config.GetDefaultLogDBConfig()
	engine.ExecShards, log.Shards = workers, workers
	return config.ExpertConfig{Engine: engine, LogDB: log}
}

// kv is a regular state machine in memory. dragonboat keeps Lookup and Update apart with a lock of its own.
type kv struct {
	values map[[common.KeyBytes]byte][]byte
}

func (s *kv) Update(entry statemachine.Entry) (statemachine.Result, error) {
	if len(entry.Cmd) >= common.KeyBytes {
		key := [common.KeyBytes]byte(entry.Cmd)
		s.values[key] = append(s.values[key][:0], entry.Cmd[common.KeyBytes:]...)
	}
	return statemachine.Result{Value: 1}, nil
}

func (s *kv) Lookup(key any) (any, error) {
	// A copy: Update overwrites in place.
	return append([]byte(nil), s.values[key.([common.KeyBytes]byte)]...), nil
}

func (s *kv) SaveSnapshot(io.Writer, statemachine.ISnapshotFileCollection, <-chan struct{}) error {
	return errors.New("no snapshot is asked for")
}

func (s *kv) RecoverFromSnapshot(io.Reader, []statemachine.SnapshotFile, <-chan struct{}) error {
	return errors.New("no snapshot was taken")
}

func (s *kv) Close() error { return nil }

// store has one or more groups, called shards in dragonboat; a key belongs to one of them.
type store struct {
	host     *dragonboat.NodeHost
	sessions []*client.Session
}

// of says which, by FNV-1a.
func (s *store) of(key []byte) *client.Session {
	if len(s.sessions) == 1 {
		return s.sessions[0]
	}
	hash := uint32(2166136261)
	for _, b := range key {
		hash = (hash ^ uint32(b)) * 16777619
	}
	return s.sessions[hash%uint32(len(s.sessions))]
}

// lead waits until this node leads, and moves the leadership here if another one was faster.
func (s *store) lead(session *client.Session) error {
	shard := session.ShardID
	for deadline := time.Now().Add(leadTimeout); ; time.Sleep(20 * time.Millisecond) {
		leader, _, known, err := s.host.GetLeaderID(shard)
		if err == nil && known && leader == 1 {
			break
		}
		if err == nil && known {
			s.host.RequestLeaderTransfer(shard, 1)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("node 1 does not lead (but %d)", leader)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	_, err := s.host.SyncPropose(ctx, session, make([]byte, common.KeyBytes))
	return err
}

// Put retries while the leader's queue of proposals is full, which is dragonboat's back-pressure.
func (s *store) Put(command []byte) (common.Call, error) {
	session := s.of(command[:common.KeyBytes])
	for {
		state, err := s.host.Propose(session, command, callTimeout) // copies the command
		if err == nil {
			return put{state}, nil
		}
		if !errors.Is(err, dragonboat.ErrSystemBusy) {
			return nil, err
		}
		time.Sleep(busyInterval)
	}
}

func (s *store) Get(key [common.KeyBytes]byte) (common.Call, error) {
	shard := s.of(key[:]).ShardID
	for {
		state, err := s.host.ReadIndex(shard, callTimeout)
		if err == nil {
			return get{s.host, state, key}, nil
		}
		if !errors.Is(err, dragonboat.ErrSystemBusy) {
			return nil, err
		}
		time.Sleep(busyInterval)
	}
}

type put struct{ state *dragonboat.RequestState }

func (p put) Wait() ([]byte, error) {
	err := completed(p.state)
	p.state.Release()
	return nil, err
}

type get struct {
	host  *dragonboat.NodeHost
	state *dragonboat.RequestState
	key   [common.KeyBytes]byte
}

func (g get) Wait() ([]byte, error) {
	defer g.state.Release()
	if err := completed(g.state); err != nil {
		return nil, err
	}
	value, err := g.host.ReadLocalNode(g.state, g.key)
	if err != nil {
		return nil, err
	}
	return value.([]byte), nil
}

func completed(state *dragonboat.RequestState) error {
	if r := <-state.ResultC(); !r.Completed() {
		return fmt.Errorf("not completed: timeout=%v dropped=%v terminated=%v rejected=%v", r.Timeout(), r.Dropped(), r.Terminated(), r.Rejected())
	}
	return nil
}
