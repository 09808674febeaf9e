// Command etcd measures stock etcd servers, each a process of this program that runs etcd's own main, on loopback; the load comes from
// etcd's own client, over a few connections to the leader.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.uber.org/zap"

	"barge/bench/peers/common"
)

const (
	// With one connection gRPC is the limit; more than four cost the client more than they bring on two cores.
	connections  = 4
	leadTimeout  = 60 * time.Second
	callTimeout  = 20 * time.Second
	busyInterval = 10 * time.Millisecond
	// Above what a run writes: etcd refuses writes at its quota.
	quotaBytes = 8 << 30
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "node" {
		go common.EndWithParent()
		etcdmain.Main(append([]string{"etcd"}, os.Args[2:]...))
		return
	}
	l, dir := common.BenchFlags(os.Args[1:])
	addrs, err := common.FreeAddrs(2 * common.NodeCount)
	common.Check(err)
	peers, doors := addrs[:common.NodeCount], addrs[common.NodeCount:]
	nodes, err := common.StartNodes(func(id int) []string { return serverFlags(id, peers, doors, dir) })
	common.Check(err)
	defer nodes.Stop()
	measured, err := measure(doors, l)
	common.Finish(nodes, measured, common.Version("go.etcd.io/etcd/server/v3"), err)
}

// serverFlags are etcd's defaults but for the places, the quota and a quieter logger.
func serverFlags(id int, peers, doors []string, dir string) []string {
	var members []string
	for i, peer := range peers {
		members = append(members, fmt.Sprintf("n%d=http://%s", i+1, peer))
	}
	peer, door := "http://"+peers[id-1], "http://"+doors[id-1]
	return []string{
		"--name", fmt.Sprintf("n%d", id), "--data-dir", common.NodeDir(dir, id),
		"--initial-cluster", strings.Join(members, ","), "--initial-cluster-state", "new",
		"--listen-client-urls", door, "--advertise-client-urls", door,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--quota-backend-bytes", fmt.Sprint(quotaBytes), "--log-level", "error",
	}
}

func measure(doors []string, l common.Load) (common.Measured, error) {
	leader, err := leaderOf(doors)
	if err != nil {
		return common.Measured{}, err
	}
	clients := make([]*clientv3.Client, connections)
	for i := range clients {
		if clients[i], err = connect(leader); err != nil {
			return common.Measured{}, err
		}
		defer clients[i].Close()
	}
	value := string(make([]byte, l.Value))
	put := func(worker int, key string) error {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		for {
			_, err := clients[worker%connections].Put(ctx, key, value)
			// Its back-pressure, above 5,000 that are not yet applied.
			if !errors.Is(err, rpctypes.ErrTooManyRequests) {
				return err
			}
			time.Sleep(busyInterval)
		}
	}
	if l.Op == "put" {
		return common.Blocking(l, put), nil
	}
	if err := common.FillBlocking(l, put); err != nil {
		return common.Measured{}, err
	}
	return common.Blocking(l, func(worker int, key string) error {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		reply, err := clients[worker%connections].Get(ctx, key) // linearizable unless told otherwise
		if err == nil && (len(reply.Kvs) != 1 || len(reply.Kvs[0].Value) != l.Value) {
			err = errors.New("a reply without the value")
		}
		return err
	}), nil
}

// leaderOf waits until one of the nodes leads, and returns its address.
func leaderOf(doors []string) (string, error) {
	for deadline := time.Now().Add(leadTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, door := range doors {
			if isOpen(door) && leads(door) {
				return door, nil
			}
		}
	}
	return "", errors.New("no node leads")
}

// isOpen spares etcd's client its back-off.
func isOpen(door string) bool {
	connection, err := net.Dial("tcp", door)
	if err != nil {
		return false
	}
	connection.Close()
	return true
}

func leads(door string) bool {
	client, err := connect(door)
	if err != nil {
		return false
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	status, err := client.Status(ctx, door)
	return err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId
}

func connect(door string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{door}, Logger: zap.NewNop()})
}
