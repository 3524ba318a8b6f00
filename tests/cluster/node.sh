#!/bin/bash
# node.sh DIR NAME ADDRESSES PKI KIT IMAGE…: one machine of the cluster, as its first process in namespaces of its own (network,
# mounts, processes, host name). What a real machine has in /run, /var/lib, /var/log and /etc/cni lies in DIR, the rest is shared.
set -eu
dir=$1 name=$2 addresses=$3 pki=$4 kit=$5
shift 5
hostname "$name"
mount --make-rshared /
for d in run var/lib var/log etc/cni/net.d; do
  mkdir -p "$dir/$d" "/$d"
  mount --bind "$dir/$d" "/$d"
done
mkdir -p /run/netns /opt/cni/bin
mount --bind "$kit/cni" /opt/cni/bin
# kubelet insists on sysctls that are the whole host's: plain files stand in for them.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=$dir/${setting##*/}
  echo "${setting#*=}" > "$file"
  mount --bind "$file" "/proc/sys/${setting%=*}"
done

containerd -c "$dir/containerd.toml" > "$dir/containerd.log" 2>&1 &
until ctr version > /dev/null 2>&1; do sleep 0.1; done
for image; do ctr -n k8s.io images import "$image"; done
"$kit/kubelet" --config="$dir/kubelet.yaml" --kubeconfig="$pki/node-$name.kubeconfig" --hostname-override="$name" \
  --node-ip="$addresses" --cert-dir="$dir/pki" > "$dir/kubelet.log" 2>&1 &
echo $! > "$dir/kubelet.pid"
"$kit/kube-lab" kube-proxy --kubeconfig="$pki/proxy.kubeconfig" --hostname-override="$name" --proxy-mode=nftables \
  --cluster-cidr=10.244.0.0/16,fd00:244::/48 --conntrack-max-per-core=0 --conntrack-min=0 \
  --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0 > "$dir/kube-proxy.log" 2>&1 &
echo up
wait
