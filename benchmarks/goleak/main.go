// Leaks goroutines and measures how long goleak takes to tell of them.
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/goleak"
)

func innermost(wait <-chan struct{}) { <-wait }

func middle(wait <-chan struct{}) { innermost(wait) }

func outermost(started chan<- struct{}, wait <-chan struct{}) {
	started <- struct{}{}
	middle(wait)
}

// cpu returns the seconds of CPU that the process has taken.
func cpu() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(used.Utime) + seconds(used.Stime)
}

func main() {
	leaks, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	started, wait := make(chan struct{}), make(chan struct{})
	for i := 0; i < leaks; i++ {
		go outermost(started, wait)
		<-started
	}
	before, cpuBefore := time.Now(), cpu()
	found := goleak.Find()
	if found == nil {
		panic("goleak found nothing")
	}
	size := len(found.Error())
	took, cpuTook := time.Since(before), cpu()-cpuBefore
	fmt.Printf("%f %f %d\n", took.Seconds(), cpuTook, size)
}
