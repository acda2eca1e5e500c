// Package nvml reads NVIDIA cards by the driver's own library, libnvidia-ml.so.1.
//
// The binding resolves a function when it is first called, and the dynamic linker
// ends the whole process (exit 127) when the installed driver does not have it. So
// every symbol is looked up before its first use, and what is missing is a figure
// that is not known. A call into a hung driver never returns: run this package in a
// child process (package child). Without cgo there is only the reason why not.
package nvml
