// js-libp2p 3 calls Promise.withResolvers, which Node has from version 22 on. Import this before libp2p.

Promise.withResolvers ??= function withResolvers() {
  let resolve, reject;
  const promise = new this((...functions) => ([resolve, reject] = functions));
  return { promise, resolve, reject };
};
