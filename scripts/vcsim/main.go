// vcsim: a vCenter or ESXi of others to test against, made of govmomi's simulator package.
//
// When it is ready it prints a line each of `name value` (url, thumbprint, user, password, tunnel) and then `ready`. It
// ends when its standard input does, so that a test that dies takes it along. Built by scripts/install-peers from Debian's packages, without modules.
package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/url"
	"os"
	"time"

	_ "github.com/vmware/govmomi/lookup/simulator"
	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/sts/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator"
)

func main() {
	esx := flag.Bool("esx", false, "be an ESXi host instead of a vCenter")
	machines := flag.Int("vm", 2, "virtual machines in each resource pool")
	datacenters := flag.Int("dc", 1, "datacenters")
	folders := flag.Int("folder", 0, "folders around everything")
	apps := flag.Int("app", 0, "vApps in each cluster")
	pools := flag.Int("pool", 0, "resource pools in each cluster")
	datastores := flag.Int("ds", 1, "datastores")
	tunnel := flag.Bool("tunnel", false, "open the tunnel for extensions' certificates")
	export := flag.String("export", "", "file that every exported snapshot's disk is")
	listen := flag.String("l", "127.0.0.1:0", "address to listen on")
	flag.Parse()

	model := simulator.VPX()
	if *esx {
		model = simulator.ESX()
	} else {
		model.Datacenter, model.Folder, model.App, model.Pool = *datacenters, *folders, *apps, *pools
	}
	model.Machine, model.Datastore = *machines, *datastores
	defer model.Remove()
	if err := model.Create(); err != nil {
		log.Fatal(err)
	}
	const user, password = "administrator@vsphere.local", "not a secret"
	model.Service.Listen = &url.URL{Host: *listen, User: url.UserPassword(user, password)}
	certificate, err := selfSigned()
	if err != nil {
		log.Fatal(err)
	}
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	model.Service.RegisterEndpoints = true
	if *export != "" {
		added := &exports{*export}
		simulator.Map.AddHandler(added)
		model.Service.HandleFunc(exportPrefix, added.serve)
	}
	server := model.Service.NewServer()
	defer server.Close()
	if *tunnel {
		if err := server.StartTunnel(); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Printf("url https://%s/sdk\n", server.URL.Host)
	fmt.Printf("thumbprint %x\n", sha256.Sum256(server.Certificate().Raw))
	fmt.Printf("user %s\npassword %s\ntunnel %d\nready\n", user, password, server.Tunnel)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// selfSigned makes a certificate like a host's own; the built-in one has 1024 bits, too few for today's clients.
func selfSigned() (tls.Certificate, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "vcsim"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
