package common

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// NodeCount is the number of replicas, each a process with a data folder of its own.
const NodeCount = 3

// Node is what a node's process is told.
type Node struct {
	ID    int // from 1; 1 is to lead
	Addrs []string
	Dir   string // exists
	// Groups of replicas on these nodes, from 1.
	Groups int
}

// Addr is the node's own address for its peers.
func (n Node) Addr() string { return n.Addrs[n.ID-1] }

// Library runs the harness of a peer that is a library: three processes of this program, the first of which leads and serves the front.
// Start returns once the node runs, on node 1 once it leads and a first write was applied.
func Library(version string, start func(Node) (Store, error)) {
	if len(os.Args) > 1 && os.Args[1] == "node" {
		Check(serveNode(os.Args[2:], start))
		return
	}
	l, dir := BenchFlags(os.Args[1:])
	addrs, err := FreeAddrs(NodeCount + 1)
	Check(err)
	raft, front := strings.Join(addrs[:NodeCount], ","), addrs[NodeCount]
	nodes, err := StartNodes(func(id int) []string {
		return []string{"-id", strconv.Itoa(id), "-addrs", raft, "-front", front, "-dir", NodeDir(dir, id), "-groups", strconv.Itoa(l.Groups)}
	})
	Check(err)
	defer nodes.Stop()
	measured, err := Measured{}, nodes.Ready()
	if err == nil {
		measured, err = Drive(front, l)
	}
	Finish(nodes, measured, version, err)
}

func serveNode(args []string, start func(Node) (Store, error)) error {
	flags := flag.NewFlagSet("node", flag.ExitOnError)
	id := flags.Int("id", 1, "number of the node, from 1")
	addrs := flags.String("addrs", "", "addresses of all nodes")
	front := flags.String("front", "", "address of the front, served by node 1")
	dir := flags.String("dir", "", "data folder")
	groups := flags.Int("groups", 1, "groups of replicas")
	flags.Parse(args)
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return err
	}
	go EndWithParent()
	store, err := start(Node{*id, strings.Split(*addrs, ","), *dir, *groups})
	if err != nil {
		return err
	}
	if *id == 1 {
		if err := Serve(*front, store); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	select {}
}

// EndWithParent ends this process when the one that started it does, however that happens: it holds the other end of our standard input.
func EndWithParent() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// BenchFlags reads the command line of `bench`, which is the same for all peers.
func BenchFlags(args []string) (Load, string) {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	var l Load
	var warmup, seconds float64
	dir := flags.String("dir", "", "folder for the data of all nodes: must be empty or absent")
	flags.StringVar(&l.Op, "op", "put", "put or get (linearizable)")
	flags.IntVar(&l.Value, "value-bytes", 256, "size of a value")
	flags.IntVar(&l.InFlight, "in-flight", 1000, "operations that await their answer")
	flags.Uint64Var(&l.Keys, "key-space", 100_000, "how many keys, chosen evenly")
	flags.IntVar(&l.Groups, "groups", 1, "groups over which the keys are spread, where the system has groups")
	flags.Float64Var(&warmup, "warmup", 2, "seconds before anything is counted")
	flags.Float64Var(&seconds, "seconds", 5, "seconds measured")
	if len(args) == 0 || args[0] != "bench" {
		fmt.Fprintln(os.Stderr, "usage: bench -dir DIR [flags]")
		flags.PrintDefaults()
		os.Exit(2)
	}
	flags.Parse(args[1:])
	if *dir == "" || l.InFlight < 1 || l.Keys < 1 || l.Op != "put" && l.Op != "get" {
		Check(fmt.Errorf("-dir is required, -op is put or get, -in-flight and -key-space are at least 1"))
	}
	l.Warmup, l.Seconds = time.Duration(warmup*1e9), time.Duration(seconds*1e9)
	return l, *dir
}

// NodeDir is the data folder of a node.
func NodeDir(dir string, id int) string { return filepath.Join(dir, fmt.Sprintf("node%d", id)) }

// FreeAddrs finds free ports on loopback, all bound at once for a moment so that none is given twice.
func FreeAddrs(count int) (addrs []string, err error) {
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		addrs = append(addrs, listener.Addr().String())
	}
	return addrs, nil
}

// Nodes are the processes of one cluster, started by this one.
type Nodes struct {
	processes []*exec.Cmd
	outputs   []io.ReadCloser
}

// StartNodes runs this program as `node` with the given arguments, once for each id.
func StartNodes(args func(id int) []string) (*Nodes, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	nodes := &Nodes{}
	for id := 1; id <= NodeCount; id++ {
		process := exec.Command(self, append([]string{"node"}, args(id)...)...)
		process.Stderr = os.Stderr
		// Kept open and never written: see EndWithParent.
		if _, err = process.StdinPipe(); err == nil {
			var output io.ReadCloser
			if output, err = process.StdoutPipe(); err == nil {
				err = process.Start()
				nodes.outputs = append(nodes.outputs, output)
			}
		}
		if err != nil {
			nodes.Stop()
			return nil, err
		}
		nodes.processes = append(nodes.processes, process)
	}
	return nodes, nil
}

// Ready waits until every node has printed that it is.
func (n *Nodes) Ready() error {
	for i, output := range n.outputs {
		var first [1]byte
		if _, err := output.Read(first[:]); err != nil {
			return fmt.Errorf("node %d ended before it was ready", i+1)
		}
		go io.Copy(io.Discard, output)
	}
	return nil
}

// Stop kills the nodes and waits for them, so that their CPU time counts as this process's children's.
func (n *Nodes) Stop() {
	for _, process := range n.processes {
		process.Process.Kill()
	}
	for _, process := range n.processes {
		process.Wait()
	}
	n.processes = nil
}

// Finish stops the nodes and prints what was measured, or why nothing was.
func Finish(nodes *Nodes, measured Measured, version string, err error) {
	nodes.Stop()
	Check(err)
	measured.Version = version
	line, err := json.Marshal(measured)
	Check(err)
	fmt.Println(string(line))
}

// Version is that of a module in this build.
func Version(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == module {
				return strings.TrimPrefix(dependency.Version, "v")
			}
		}
	}
	return "unknown"
}

// Check ends the process with the words of an error.
func Check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
